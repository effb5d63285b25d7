"""What the learners of interventions share: draws of examples, teacher and student, losses, training, files."""
