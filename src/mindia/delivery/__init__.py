"""Sending webhooks: which addresses may be reached, HTTP, and who is sent to when."""
