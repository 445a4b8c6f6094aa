"""Deletes dataset files that the reference tables do not list.

**It is the only code that deletes data: it plans first (pure), then takes exactly what the plan lists, and keeps a
file where it is not sure.** Files go into the trash first. Face: `operations.plan_prune`, `operations.apply`,
`trash_jobs`.
"""
