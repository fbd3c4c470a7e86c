"""What becomes of a kernel that cannot be asked. Its answers are tested in service_test."""

import sys
import unittest

from intelgraph.service.kernel import Kernel, KernelError


class KernelTest(unittest.TestCase):
    def reason(self, program):
        """Why asking this program fails."""
        with self.assertRaises(KernelError) as caught:
            Kernel(program, "entities.csv", "links.csv").path("P001", "P002", "hops", 3)
        return str(caught.exception)

    def test_a_missing_program(self):
        self.assertIn("No such file", self.reason("/nonexistent/graph_tool"))

    def test_a_program_that_fails(self):
        # The interpreter takes the kernel's command `path` for a script, which does not exist.
        self.assertIn("can't open file", self.reason(sys.executable))


if __name__ == "__main__":
    unittest.main()
