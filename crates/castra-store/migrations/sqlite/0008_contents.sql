-- A content is in a file of its task alone, which its name and its SHA-256 give: nobody asks any more who else has it.
DROP INDEX deliverables_by_content;
