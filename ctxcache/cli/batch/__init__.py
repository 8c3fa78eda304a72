"""The parts of `ctxcache map`: questions in, answers out, and the work between.

From the top: `summary` (the last words) · `work` (asks) · `journal` (the file of answers) and `progress` · `questions`.
"""
