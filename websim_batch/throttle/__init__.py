"""Holds our own rate: `Throttle` is asked before every request and told what each one met."""

from websim_batch.throttle.signals import Grant, Signal, ThrottleState
from websim_batch.throttle.throttle import Throttle

__all__ = ["Grant", "Signal", "Throttle", "ThrottleState"]
