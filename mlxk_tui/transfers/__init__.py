"""The transfer queue: pulls and pushes that go on where they stopped, whatever ended the program."""
