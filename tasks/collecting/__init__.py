"""The parts of stage `collect`: what is asked for, what the network has, and how a picture becomes a row."""
