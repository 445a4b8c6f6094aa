"""Deletes dataset files that the reference tables do not list.

The only code that deletes data: plan first (pure), then carry out exactly that plan. Files go into the trash, from
which they can be brought back until it is emptied. Face: `operations.plan_prune`, `operations.apply`, `trash_jobs`.
"""
