"""Work requests, the two queues of a QP, and completion rings with their arming rules."""
