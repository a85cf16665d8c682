"""A discrete-event simulator of rate-limited servers, to try the throttle's controller through hours in
seconds."""
