"""What the stage `curate` is made of: references, the verdict on each face, and which faces repeat others."""
