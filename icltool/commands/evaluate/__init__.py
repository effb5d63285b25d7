"""Answer queries with each method's demonstrations, and score."""

RANK = 50
