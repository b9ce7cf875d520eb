"""One message of a step: sent, looked for, and sent again when it is nowhere."""

from typing import Any, Final

from celery import Celery
from celery.result import AsyncResult
from kombu.exceptions import ChannelError, OperationalError
from redis.exceptions import RedisError

from emboflow_dagster.orchestration import celery_app

ASK_S: Final = 2.0
# Broker or backend do not answer: they are waited for, whatever they are.
OUTAGE: Final = (OperationalError, RedisError, ConnectionError, TimeoutError)


class Sent:
    """A message with its result. Sent again it has the same id: the first that begins the step is the one."""

    def __init__(self, app: Celery, queue: str, content: dict[str, Any]) -> None:
        self._app, self._content = app, content
        self.queue = queue
        self.result: AsyncResult = app.send_task(celery_app.TASK, kwargs=content, queue=queue)

    def again(self) -> None:
        """Send it once more; a broker that does not answer is asked another time."""
        try:
            self._app.send_task(
                celery_app.TASK, kwargs=self._content, queue=self.queue, task_id=self.result.id
            )
        except OUTAGE:
            return

    def is_nowhere(self) -> bool:
        """Whether it is neither in the queue nor with any worker.

        A worker took it and died before it said so, or the broker came back empty.
        """
        try:
            return self._waiting() == 0 and not self._is_with_a_worker()
        except OUTAGE:
            return False

    def _waiting(self) -> int:
        with self._app.connection_for_read() as connection:
            try:
                return int(connection.default_channel.queue_declare(self.queue, passive=True).message_count)
            except ChannelError:  # Redis has no empty queues
                return 0

    def _is_with_a_worker(self) -> bool:
        known = self._app.control.inspect(timeout=ASK_S).query_task(self.result.id) or {}
        return any(self.result.id in tasks for tasks in known.values())
