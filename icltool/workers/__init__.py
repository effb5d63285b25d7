"""What each worker of a stage does: made from the stage's configuration alone, in this process or in another one."""
