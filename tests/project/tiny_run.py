"""`tiltwise ARGUMENTS` with the tiny pipeline, for tests that need a process of its own."""

import tiny_projects

tiny_projects.install()

if __name__ == "__main__":
    from tiltwise.cli import main

    main()
