"""What learners share that steer a frozen LVLM: the examples they draw, teacher and student, losses, training, files."""
