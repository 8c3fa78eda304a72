"""The parts of `ctxcache map`: questions in, answers out, and the work between.

From the top::

summary     the last words                  work        one start: asks, counts
merge       one file of all shards
check       all questions, before the first is sent
journal     the answers, in a file          progress    a bar, or lines
lines       a file of answers, read and checked
answered    which questions have an answer  books       usage and cost over all starts
settings    prefix, model, sampling
questions   the file of questions           files       locked, replaced
formats     JSON lines, text, CSV           shards      the parts of a batch
"""
