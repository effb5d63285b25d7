"""Learners, which train selectors, interventions and captioners."""
