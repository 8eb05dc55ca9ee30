"""What recipes share.

- `program`, `settings`, `prerequisites`, `errors`: a recipe as a command
- `classifier`, `tensor_cache`, `results`: what measurements look at, and write
"""
