"""Training of the light network of the transform net: Extended Yale B's pictures, and the loop."""
