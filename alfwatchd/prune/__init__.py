"""Deletes dataset files that the reference tables do not list.

The only code that deletes data: plan first (pure), then exactly that plan, into the trash. Face:
`operations.plan_prune`, `operations.apply`, `trash_jobs`.
"""
