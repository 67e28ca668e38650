"""How a stage's work is done: cut into shards, given to a cluster, shown as progress."""
