"""`gateway bench`: what the gateway costs, beside the upstream itself and beside others, in one run on one machine."""
