"""What people see of a result, drawn from the envelope alone."""
