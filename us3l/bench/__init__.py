"""`us3l bench`: ours, the straightforward way and what else is installed, measured in alternation in one run.

Nothing else imports this package.
"""
