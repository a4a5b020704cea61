"""The main job on real input: two branches and their cloud, cut off, killed, settled."""
