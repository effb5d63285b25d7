"""What the training stage is made of: a job for each kind of learner."""
