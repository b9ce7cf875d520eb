"""What is remembered: pydantic documents, one module an aggregate."""
