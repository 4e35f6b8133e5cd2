"""Ship conf/, which is at the top of the repository, inside the wheel as project/conf."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    def run(self):
        super().run()
        if not self.editable_mode:  # an editable installation reads conf/ of the checkout
            shutil.copytree("conf", Path(self.build_lib) / "project" / "conf", dirs_exist_ok=True)


setup(cmdclass={"build_py": BuildWithConf})
