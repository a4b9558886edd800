# SPDX-License-Identifier: Apache-2.0
"""Conan 2 recipe that packages the tree it lies in.

conan create . --build=missing, or with the dependencies of the system:
conan create . -o 'ropewalk/*:system_deps=True'
"""

import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load, rmdir

required_conan_version = ">=2.0"


class Ropewalk(ConanFile):
    name = "ropewalk"
    description = "Rotary position embeddings and context extension, header-only C++20"
    license = "Apache-2.0"
    topics = ("rope", "llama", "attention", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    # system_deps: take the dependencies from the system instead of from Conan.
    # The rest: components beside core and rope, and what they need.
    options = {
        "system_deps": [True, False],
        "kernels": [True, False],
        "files": [True, False],
        "text": [True, False],
        "eigen": [True, False],
    }
    default_options = {
        "system_deps": False,
        "kernels": True,
        "files": True,
        "text": True,
        "eigen": True,
    }
    exports_sources = "CMakeLists.txt", "LICENSE", "include/*"
    no_copy_source = True

    def set_version(self):
        config = load(self, os.path.join(self.recipe_folder, "include/ropewalk/core/config.hpp"))
        self.version = ".".join(
            re.search(rf"#define ROPEWALK_VERSION_{part} (\d+)", config).group(1)
            for part in ("MAJOR", "MINOR", "PATCH"))

    def export(self):  # set_version reads it
        copy(self, "include/ropewalk/core/config.hpp", self.recipe_folder, self.export_folder)

    def layout(self):
        cmake_layout(self)

    def requirements(self):
        if self.options.system_deps:
            return
        self.requires("xxhash/0.8.2")
        if self.options.kernels:
            self.requires("xsimd/8.1.0")
        if self.options.files:
            self.requires("nlohmann_json/3.11.3")
        if self._text:
            self.requires("pcre2/10.42")
            self.requires("utf8proc/2.8.0")
        if self.options.eigen:
            self.requires("eigen/3.4.0")

    @property
    def _text(self):  # tokenizers are read from files
        return self.options.files and self.options.text

    @property
    def _hub(self):
        return self.options.kernels and self._text

    def package_id(self):
        self.info.settings.clear()

    def validate(self):
        check_min_cppstd(self, 20)

    def _components(self):
        names = ["core", "rope"]
        if self.options.kernels:
            names.append("ropewalk")
        if self.options.files:
            names.append("io")
        if self._text:
            names.append("text")
        if self._hub:
            names.append("hub")
        if self.options.eigen:
            names.append("adapt")
        return names

    def generate(self):
        toolchain = CMakeToolchain(self)
        toolchain.user_presets_path = False  # leaves the tree as it is
        toolchain.cache_variables["ROPEWALK_COMPONENTS"] = ";".join(self._components())
        toolchain.cache_variables["ROPEWALK_ARCH"] = ""
        for what in ("TESTS", "BENCHMARKS", "EXAMPLES", "EXPERIMENTS"):
            toolchain.cache_variables[f"ROPEWALK_BUILD_{what}"] = "OFF"
        toolchain.generate()
        if not self.options.system_deps:
            CMakeDeps(self).generate()

    def build(self):
        CMake(self).configure()

    def package(self):
        CMake(self).install()
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))
        rmdir(self, os.path.join(self.package_folder, "share"))  # Conan writes its own files

    def package_info(self):
        self.cpp_info.bindirs = []
        self.cpp_info.libdirs = []
        self.cpp_info.set_property("cmake_file_name", "ropewalk")

        def component(name, requires=(), packages=(), system_libs=(), include=()):
            info = self.cpp_info.components[name]
            info.set_property("cmake_target_name", f"ropewalk::{name}")
            info.set_property(
                "pkg_config_name", "ropewalk" if name == "ropewalk" else f"ropewalk-{name}")
            info.bindirs = []
            info.libdirs = []
            info.requires = list(requires)
            if self.options.system_deps:
                info.system_libs = list(system_libs)
            else:
                info.requires += list(packages)

        component("core", packages=["xxhash::xxhash"])
        component("rope", ["core"])
        if self.options.kernels:
            component("ropewalk", ["rope"], ["xsimd::xsimd"])
            self.cpp_info.components["ropewalk"].system_libs.append("pthread")
        if self.options.files:
            component("io", ["core"], ["nlohmann_json::nlohmann_json"])
        if self._text:
            component("text", ["io"], ["pcre2::pcre2-8", "utf8proc::utf8proc"],
                      ["pcre2-8", "utf8proc"])
        if self._hub:
            component("hub", ["ropewalk", "text"])
        if self.options.eigen:
            component("adapt", ["core"], ["eigen::eigen"])
            if self.options.system_deps:
                self.cpp_info.components["adapt"].includedirs.append("/usr/include/eigen3")
