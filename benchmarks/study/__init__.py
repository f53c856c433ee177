"""The study of compatibility, in parts that can be run, stopped and gone on with one by one."""
