def set_num_threads(count):
    pass
