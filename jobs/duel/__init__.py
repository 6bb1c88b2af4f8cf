"""Both frameworks in randomised blocks on one device: the plan, its runs, and when to stop."""
