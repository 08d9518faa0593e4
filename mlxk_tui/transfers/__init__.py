"""The transfer queue: pulls and pushes that resume after a restart of the program."""
