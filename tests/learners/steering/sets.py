"""A SteeringSet of examples in memory."""

from __future__ import annotations

from icltool.testing import make_steering_set as steering_set

__all__ = ["steering_set"]
