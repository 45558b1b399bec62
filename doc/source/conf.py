# Licensed under the Apache License, Version 2.0 (the "License"); you may
# not use this file except in compliance with the License. You may obtain
# a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS, WITHOUT
# WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied. See the
# License for the specific language governing permissions and limitations
# under the License.


"""Sphinx configuration of the documentation, built with ``tox -e docs``."""

project = "Qinling"
project_copyright = "Qinling contributors"

extensions = ["openstackdocstheme"]
root_doc = "index"

html_theme = "openstackdocs"
# Without an empty code the theme's own puts a web tracker on every page.
html_theme_options = {"analytics_tracking_code": ""}

# setup.cfg has the name in lower case.
openstackdocs_auto_name = False
