"""Many questions over one prefix: `Map` asks them, an `Answer` is the result of each.

Floors, from the top; a file imports from lower floors only::

    map        Map: the async iterator
    scheduler  its tasks: the feeder, the attempts, the pause
    retries    when calls start, and whether a question is asked again
    limiter    how many calls at once        outage   one probe while no connection can be made
    pace       when calls may start          source   the questions        answers   the answers, in order
"""

from .answers import Answer
from .map import Map

__all__ = ["Answer", "Map"]
