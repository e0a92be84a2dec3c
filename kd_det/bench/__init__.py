"""Trainings at equal budget, side by side: what the demo and the benchmark harness are made of."""
