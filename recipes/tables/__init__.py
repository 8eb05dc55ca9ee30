"""Tables of students, and every figure of README, cards and docs.

- `students`, `rank_architectures`, `trainings`: commands that write results
- `result_tables`, `findings`: results -> Markdown, which the command `write_cards` puts where it is shown
"""
