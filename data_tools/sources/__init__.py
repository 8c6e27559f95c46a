"""Agent kinds and log formats: what turns one row of a log into a Trajectory, and checks answers."""
