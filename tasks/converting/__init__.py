"""What the stage `convert` is made of: the plan of an archive or a folder, and one video on a pool of workers."""
