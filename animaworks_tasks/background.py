"""``BackgroundTaskManager`` under the name by which AnimaWorks' own code imports it."""

from animaworks_tasks.animaworks.background_task import BackgroundTask, TaskStatus
from animaworks_tasks.animaworks.eligible import DEFAULT_ELIGIBLE_TOOLS
from animaworks_tasks.animaworks.in_process import SubmittedId
from animaworks_tasks.animaworks.manager import BackgroundTaskManager

__all__ = ["DEFAULT_ELIGIBLE_TOOLS", "BackgroundTask", "BackgroundTaskManager", "SubmittedId", "TaskStatus"]
