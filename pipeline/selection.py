"""What is compared of what is in MLflow."""


def compare_stored(arguments):
    raise NotImplementedError
