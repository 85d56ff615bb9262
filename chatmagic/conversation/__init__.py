"""What was said and what is sent: values and rules, without I/O."""
