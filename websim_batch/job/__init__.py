"""What is to be done: settings, the table of options, job files, drift."""
