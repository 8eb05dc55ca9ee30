"""Experiments with students: settings -> a run in a folder of its own, and tables of runs.

Needs the extra "train".

- `protocol_files`, `protocols/`: published protocols, a file for each data set and number of images
- `student_settings`, `student_inputs`: what a student is trained by, and with
- `student_run`, `student_export`: one student -> its accuracy, and its weights
- `table_rows`, `train_table`, `table_files`: many students -> JSON, Markdown and a plot
"""
