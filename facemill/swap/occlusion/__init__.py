"""What lies in front of a face that is replaced, and stays there: `methods` has the doors to the ways of finding it."""
