"""One cached prompt on a cluster: `PrefixAsker` answers batches of questions in the workers of Dask, Ray or any engine.

No framework is imported. Floors, from the top; a file imports from lower floors only::

    asker       PrefixAsker: settings that can be pickled; a batch in, the batch with answers out
    worker      one Line for each process and event loop; opened at the first batch, closed with the loop
    line        Line: the questions of all batches of a worker, asked by one Map
    columns     columns in, columns out         store_url   a store by its URL
"""

from .asker import PrefixAsker

__all__ = ["PrefixAsker"]
