"""`tiltwise ARGUMENTS` with the tiny pipeline, for tests that need a process of its own."""

import conftest

conftest.install()

if __name__ == "__main__":
    from tiltwise.cli import main

    main()
