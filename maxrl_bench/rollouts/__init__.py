"""N rollouts of an instance, and policies."""
