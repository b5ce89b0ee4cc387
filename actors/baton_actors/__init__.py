"""What runs: workers, joins, models, the command `baton`. Handlers import `actor`, `Context`, `Retry`, `Fail`."""

from baton_actors.agents.handlers import Context, actor
from baton_actors.errors import Fail, Retry

__all__ = ["Context", "Fail", "Retry", "actor"]
