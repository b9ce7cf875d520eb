"""A few small pictures, clips and scenes of what is inside a recording or an episode."""
