"""What a success and a failure weigh."""
